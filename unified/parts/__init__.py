"""The device half of every kind of content: embedding, losses, and generation of a view."""

KINDS = {  # short names of configs; others are import paths
    "text": "unified.parts.text:TextPart",
    "vision": "unified.parts.vision:VisionPart",
    "flow": "unified.parts.flow:FlowPart",
    "codes": "unified.parts.codes:CodesPart",
}
