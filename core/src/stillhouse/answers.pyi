# Deprecated, see _deprecated.py: for type checkers, which do not see the alias.
from stillhouse.structured import AnswerForm as AnswerForm
from stillhouse.structured import answer_problem as answer_problem
from stillhouse.structured import value_problem as value_problem
