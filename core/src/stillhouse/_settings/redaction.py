class Redactor:
    def __init__(self, secrets):
        self.secrets = tuple(s for s in secrets if s and len(s) >= 8)

    def redact(self, text):
        for s in self.secrets:
            text = text.replace(s, "*" * 10)
        return text

    def with_secrets(self, more):
        return Redactor((*self.secrets, *more))

    def redact_error(self, error):
        pass


def secret_values(model):
    return []
