# Deprecated, see _deprecated.py: for type checkers, which do not see the alias.
from stillhouse.http import BLOCK as BLOCK
from stillhouse.http import Upload as Upload
from stillhouse.http import form_upload as form_upload
