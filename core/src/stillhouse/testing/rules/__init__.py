"""The rules, grouped by what they are about. Each is a method whose docstring is the rule itself."""
