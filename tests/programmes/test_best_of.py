"""Of several pictures, the one that is read best."""

import numpy as np

from unified.programmes.best_of import best_of, candidate_seed
from unified.sequence import Segment


def test_the_candidate_is_kept_whose_text_is_read_most_surely():
    """Pictures say their seed; the second candidate of every request is the most likely."""
    requests = [[Segment("a dog")], [], [Segment("two"), Segment("a cat")]]
    best = {candidate_seed(seed, 1) for seed in (3, 5)}
    asked = []

    def draw(requests, seeds):
        return [np.full((1, 1, 3), seed) for seed in seeds]

    def score(read):
        asked.extend(read)
        return [float(request[0].content[0, 0, 0] in best) for request in read]

    kept = best_of(requests, [3, 4, 5], 3, "what is it?", draw=draw, score=score)
    seeds = [candidate_seed(3, 1), 4, candidate_seed(5, 1)]
    assert [int(picture[0, 0, 0]) for picture in kept] == seeds
    assert len(asked) == 3 + 1 + 3  # one candidate where there is no text
    said = [[segment.content for segment in request[1:]] for request in asked]
    assert (
        said == [["what is it?", "a dog"]] * 3 + [["what is it?"]] + [["what is it?", "a cat"]] * 3
    )
    assert asked[0][-1].role == "target"
