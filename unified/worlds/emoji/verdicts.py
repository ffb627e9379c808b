"""The judge of each task, on scenes and on icons."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from unified.evaluation.verdict import Verdict
from unified.worlds.emoji import icon, judge
from unified.worlds.emoji.truth import Truth

# (task, whether it is about an icon) -> the verdict on text or pixels
JUDGES: Mapping[tuple[str, bool], Callable[[Truth, Any], Verdict]] = MappingProxyType(
    {
        ("generate", False): judge.judge_scene,
        ("edit", False): judge.judge_edit,
        ("layout", False): judge.judge_layout,
        ("caption", False): judge.judge_caption,
        ("vqa", False): judge.judge_answer,
        ("locate", False): judge.judge_boxes,
        ("text", False): judge.judge_answer,
        ("generate", True): icon.judge_drawing,
        ("edit", True): icon.judge_drawing,
        ("caption", True): icon.judge_caption,
        ("vqa", True): judge.judge_answer,
    }
)
