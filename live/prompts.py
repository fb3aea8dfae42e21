"""Fresh prompts of about the wanted length, without a tokenizer: the replies to warm-up
requests tell the length.

Every prompt begins with its own random word, as engines reuse what they have computed for the same beginning.
"""

from __future__ import annotations

import secrets

__all__ = ["PromptMaker"]

# Short common words, one token each in the vocabularies of the models in the catalogue.
WORDS = """
apple river stone light garden window music paper mountain winter summer table silver ocean forest bread horse
street letter bridge morning evening glass cloud island market field corner engine story travel network signal
machine village doctor kitchen coffee ticket camera pencil planet rocket butter castle desert dragon
""".split()  # noqa: SIM905 (one word a line would fill the page)
ASK = "Write a very long story in which all of these words occur, and do not end it: "
OVERHEAD_TOKENS = 40.0  # a first guess: chat template, the request itself and the random word


class PromptMaker:
    """Makes prompts of `target_tokens` tokens, chat template included, as exactly as it has learnt to.

    `tokens = overhead + per_word * words`, a straight line through what `learn` was told.
    """

    def __init__(self, target_tokens: int) -> None:
        self.target_tokens = target_tokens
        self._seen: dict[int, int] = {}

    def make(self, words: int | None = None) -> tuple[str, int]:
        """A fresh prompt and its number of words (default: what the target needs)."""
        count = self.words_for_target() if words is None else words
        chosen = [secrets.choice(WORDS) for _ in range(count)]
        # first of all a word that nobody had before: engines keep what they have computed for a beginning
        return f"{secrets.token_hex(4)} {ASK}{' '.join(chosen)}", count

    def learn(self, words: int, prompt_tokens: int | None) -> None:
        """A prompt with so many words came to `prompt_tokens` tokens; None teaches nothing."""
        if prompt_tokens is not None:
            self._seen[words] = prompt_tokens

    def words_for_target(self) -> int:
        """Words that bring a prompt nearest to the target, at least one."""
        overhead, per_word = self._line()
        return max(1, round((self.target_tokens - overhead) / per_word))

    def _line(self) -> tuple[float, float]:
        if not self._seen:
            return OVERHEAD_TOKENS, 1.0
        few, many = min(self._seen), max(self._seen)
        # one point gives no slope: a token per word, as the words were chosen
        if few == many:
            return self._seen[few] - float(few), 1.0
        # a cluster that counts oddly must not ask for a book
        per_word = max(0.2, (self._seen[many] - self._seen[few]) / (many - few))
        return self._seen[many] - per_word * many, per_word
