"""What a trained model is asked: to answer, to draw, to edit."""

from unified.generation.drawing import Drawing
from unified.inference.assistant import Assistant, load
