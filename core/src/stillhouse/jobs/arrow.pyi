# Deprecated, see _deprecated.py: for type checkers, which do not see the alias.
from stillhouse.jobs.formats import RowSpool as RowSpool
from stillhouse.jobs.formats import readable as readable
from stillhouse.jobs.formats import rows_of as rows_of
