"""What a trained model is asked: to answer, to draw, to edit."""

from unified.generation.drawing import Drawing
from unified.inference.assistant import Assistant
from unified.inference.loading import load
from unified.inference.picture_tokenizer import PictureTokenizer
