# Deprecated, see _deprecated.py: for type checkers, which do not see the alias.
from stillhouse.offline import BatchLedger as BatchLedger
from stillhouse.offline import Chunk as Chunk
from stillhouse.offline import ChunkState as ChunkState
from stillhouse.offline import Rows as Rows
from stillhouse.offline import default_path as default_path
from stillhouse.offline import new_name as new_name
