# Deprecated, see _deprecated.py: for type checkers, which do not see the alias.
from stillhouse import Serializable as Serializable
from stillhouse import digest as digest
from stillhouse import is_secret as is_secret
from stillhouse import read_settings as read_settings
from stillhouse import shaping_fields as shaping_fields
from stillhouse import without_secrets as without_secrets
