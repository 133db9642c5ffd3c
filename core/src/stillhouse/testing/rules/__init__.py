"""The rules, grouped by subject. Each is a method whose docstring is the rule itself."""
