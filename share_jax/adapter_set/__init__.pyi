from .manifest import Manifest as Manifest
from .manifest import TaskEntry as TaskEntry
from .manifest import is_set as is_set
from .manifest import read_manifest as read_manifest
from .store import AdapterSet as AdapterSet
from .store import check_files as check_files
from .store import read_set as read_set
