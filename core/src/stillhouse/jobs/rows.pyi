# Deprecated, see _deprecated.py: for type checkers, which do not see the alias.
from stillhouse.jobs.formats import Row as Row
from stillhouse.jobs.formats import RowFormatter as RowFormatter
from stillhouse.jobs.formats import digest_of as digest_of
from stillhouse.jobs.formats import invalid_row as invalid_row
