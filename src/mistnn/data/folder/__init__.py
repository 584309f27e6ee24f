"""Image folders of users: reading their content, sampling their images, and estimating the size of their objects."""

from mistnn.data.folder.content import FolderImage, OwnFolder, in_order_of, read_folder
from mistnn.data.folder.images import FolderConfig, FolderImages, GivenConfig
from mistnn.data.folder.object_size import SizeSuggestion, suggest_object_size

__all__ = [
    "FolderConfig",
    "FolderImage",
    "FolderImages",
    "GivenConfig",
    "OwnFolder",
    "SizeSuggestion",
    "in_order_of",
    "read_folder",
    "suggest_object_size",
]
