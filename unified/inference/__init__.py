"""What a trained model is asked: to answer, to draw, to edit."""

from unified.inference.assistant import Assistant, load
from unified.inference.drawing import Drawing
