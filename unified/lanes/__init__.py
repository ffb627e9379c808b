"""The host half of every kind of content: how much a row holds, and how segments become tokens."""

from unified.lanes.lane import Lane
from unified.lanes.patch import PatchLane, PatchTokens
from unified.lanes.picture import PictureLane, PictureTokens
from unified.lanes.text import TextLane, TextTokens
