# Deprecated, see _deprecated.py: for type checkers, which do not see the alias.
from stillhouse.http import Failure as Failure
from stillhouse.http import UnclearError as UnclearError
from stillhouse.http import failure_of as failure_of
from stillhouse.http import message_of as message_of
