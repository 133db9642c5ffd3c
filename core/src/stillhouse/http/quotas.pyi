# Deprecated, see _deprecated.py: for type checkers, which do not see the alias.
from stillhouse.http import X_RATELIMIT as X_RATELIMIT
from stillhouse.http import QuotaHeaders as QuotaHeaders
from stillhouse.http import left_of as left_of
from stillhouse.http import seconds_until as seconds_until
