"""The pool: which pages belong to which sequence. It deals in page numbers and token ids, never in tensors.

Layers that see equally far back form a group, and each group numbers its own pages: layers with a window give back
what they can no longer see, while layers without one keep everything. A full page of computed tokens is known by a
digest of itself and all before it, so a later sequence with the same beginning shares it.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

GONE = -1  # in a table: a page given back because no later token can see it


@dataclass(slots=True, eq=False)
class Table:
    """The pages of one sequence: of each group the page numbers in order, GONE where given back.

    digests: of the sequence's full pages, as far as computed; sealed: full pages offered for sharing so far.
    """

    pages: list[list[int]]
    salt: bytes = b""
    digests: list[bytes] = field(default_factory=list)
    sealed: int = 0


@dataclass(frozen=True)
class Copy:
    """Before the next step: page `source` of a group must be copied to page `target`."""

    group: int
    source: int
    target: int


class Group:
    """The pages of all layers that see equally far back. window: in tokens, None without one."""

    def __init__(self, num_pages: int, window: int | None = None) -> None:
        self.num_pages = num_pages
        self.window = window
        self.counts = [0] * num_pages
        self.free = list(range(num_pages - 1, -1, -1))
        self.idle: OrderedDict[int, None] = OrderedDict()  # shareable, owned by nobody, least recently used first
        self.by_digest: dict[bytes, int] = {}
        self.content: list[tuple[bytes, tuple[int, ...]] | None] = [None] * num_pages

    @property
    def available(self) -> int:
        """Pages that could be taken now."""
        return len(self.free) + len(self.idle)

    def take(self) -> int:
        """A page for writing, owned once. The caller has made sure that one is available."""
        if self.free:
            page = self.free.pop()
        else:
            page, _ = self.idle.popitem(last=False)
            self._forget(page)
        self.counts[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more owner of a page."""
        if self.counts[page] == 0:
            del self.idle[page]
        self.counts[page] += 1

    def release(self, page: int) -> None:
        """One owner less; a page without owners waits to be shared or, if it cannot be, is free."""
        self.counts[page] -= 1
        if self.counts[page] == 0:
            if self.content[page] is None:
                self.free.append(page)
            else:
                self.idle[page] = None

    def offer(self, page: int, digest: bytes, tokens: tuple[int, ...]) -> None:
        """Let later sequences share this page; the first page of a content stays the one that is shared."""
        if digest not in self.by_digest and self.content[page] is None:
            self.by_digest[digest] = page
            self.content[page] = (digest, tokens)

    def shared(self, digest: bytes, tokens: tuple[int, ...]) -> int | None:
        """The page of this content, the tokens compared, or None."""
        page = self.by_digest.get(digest)
        if page is None or self.content[page] != (digest, tokens):
            return None
        return page

    def first_seen(self, length: int, page_size: int) -> int:
        """The first page that a query at position `length` or later can see."""
        return 0 if self.window is None else max(0, length - self.window + 1) // page_size

    def clear(self) -> None:
        """Forget every shareable page that nobody owns."""
        while self.idle:
            page, _ = self.idle.popitem()
            self._forget(page)
            self.free.append(page)

    def _forget(self, page: int) -> None:
        content = self.content[page]
        assert content is not None
        del self.by_digest[content[0]]
        self.content[page] = None


class Pool:
    """All groups of pages of a model, and what sequences ask of them. `reuse`: share pages of equal beginnings."""

    def __init__(self, groups: Sequence[Group], page_size: int = 16, reuse: bool = True) -> None:
        self.groups = list(groups)
        self.page_size = page_size
        self.reuse = reuse

    def longest(self, chunk: int) -> float:
        """Tokens of the longest sequence that fits when it is alone and computed `chunk` tokens at a time; infinite
        where every layer has a window."""
        return min(
            math.inf if group.num_pages >= self._at_once(group, math.inf, chunk) else group.num_pages * self.page_size
            for group in self.groups
        )

    def fits(self, table: Table, num_tokens: int, chunk: int, spare: int) -> bool:
        """Whether a sequence could grow to so many tokens with what is available, leaving `spare` pages."""
        for group, pages in zip(self.groups, table.pages):
            owned = len(pages) - pages.count(GONE)
            if self._at_once(group, num_tokens, chunk) - owned > group.available - spare:
                return False
        return True

    def _at_once(self, group: Group, num_tokens: float, chunk: int) -> float:
        """Pages that a sequence owns at most while it grows to so many tokens."""
        if group.window is None:
            return math.inf if num_tokens == math.inf else self.pages_for(int(num_tokens))
        band = self.pages_for(group.window + chunk) + 2
        return band if num_tokens == math.inf else min(band, self.pages_for(int(num_tokens)))

    @property
    def available(self) -> int:
        """Pages that could be taken now, of the group that has fewest."""
        return min(group.available for group in self.groups)

    @property
    def used(self) -> int:
        """Pages owned by sequences, of all groups."""
        return sum(group.num_pages - group.available for group in self.groups)

    def table(self, salt: bytes = b"") -> Table:
        """An empty table."""
        return Table([[] for _ in self.groups], salt)

    def pages_for(self, num_tokens: int) -> int:
        """Pages that so many tokens fill or begin."""
        return -(-num_tokens // self.page_size)

    def adopt(self, table: Table, tokens: list[int], most: int) -> int:
        """Give an empty table the pages that already hold the longest beginning of `tokens`, at most `most` tokens;
        how many tokens those are."""
        if not self.reuse:
            return 0
        size = self.page_size
        limit = most // size
        self._digest(table, tokens, limit)
        found: list[list[int | None]] = [[] for _ in self.groups]
        runs = [0] * len(self.groups)
        longest = 0
        for i in range(limit):
            content = tuple(tokens[i * size : (i + 1) * size])
            for g, group in enumerate(self.groups):
                page = group.shared(table.digests[i], content)
                found[g].append(page)
                runs[g] = 0 if page is None else runs[g] + 1
            whole = [run for run, group in zip(runs, self.groups) if group.window is None]
            if whole and min(whole) < i + 1:
                break
            ends = (i + 1) * size
            if all(run >= i + 1 - group.first_seen(ends, size) for run, group in zip(runs, self.groups)):
                longest = i + 1
        for g, group in enumerate(self.groups):
            first = group.first_seen(longest * size, size)
            pages = [GONE] * min(first, longest) + [page for page in found[g][first:longest] if page is not None]
            for page in pages[first:]:
                group.share(page)
            table.pages[g] = pages
        table.sealed = longest
        return longest * size

    def reserve(self, table: Table, start: int, stop: int) -> list[Copy] | None:
        """Pages for writing tokens start … stop - 1, all or (None) nothing; what must be copied before, because the
        page of `start` is shared."""
        size = self.page_size
        needed = -(-stop // size)
        shared = start // size if start % size else None
        copies: list[Copy] = []
        for g, group in enumerate(self.groups):
            pages = table.pages[g]
            more = needed - len(pages)
            forks = shared is not None and group.counts[pages[shared]] > 1
            if more + forks > 0 and group.available < more + forks:
                self._undo(table, g, start // size, copies)
                return None
            if forks:
                assert shared is not None
                source, target = pages[shared], group.take()
                group.release(source)
                pages[shared] = target
                copies.append(Copy(g, source, target))
            for _ in range(more):
                pages.append(group.take())
        return copies

    def _undo(self, table: Table, groups: int, forked: int, copies: list[Copy]) -> None:
        """Give back what `reserve` took of the first groups."""
        for copy in copies:
            self.groups[copy.group].share(copy.source)
            self.groups[copy.group].release(copy.target)
            table.pages[copy.group][forked] = copy.source
        keep = len(table.pages[groups])
        for group, pages in zip(self.groups[:groups], table.pages):
            while len(pages) > keep:
                group.release(pages.pop())

    def advance(self, table: Table, tokens: list[int], computed: int) -> None:
        """Tokens up to `computed` now lie in pages: offer full pages, give back what no later token can see."""
        size = self.page_size
        full = computed // size
        if full > table.sealed:
            if self.reuse:
                self._offer(table, tokens, full)
            table.sealed = full
            for group, pages in zip(self.groups, table.pages):
                if group.window is not None:
                    self._give_back(group, pages, group.first_seen(computed, size))

    def _offer(self, table: Table, tokens: list[int], full: int) -> None:
        size = self.page_size
        self._digest(table, tokens, full)
        for i in range(table.sealed, full):
            content = tuple(tokens[i * size : (i + 1) * size])
            for group, pages in zip(self.groups, table.pages):
                if pages[i] != GONE:
                    group.offer(pages[i], table.digests[i], content)

    @staticmethod
    def _give_back(group: Group, pages: list[int], first: int) -> None:
        i = first - 1
        while i >= 0 and pages[i] != GONE:
            group.release(pages[i])
            pages[i] = GONE
            i -= 1

    def fork(self, table: Table) -> Table:
        """A second owner of all pages; whoever writes into a shared page first gets a copy."""
        for group, pages in zip(self.groups, table.pages):
            for page in pages:
                if page != GONE:
                    group.share(page)
        return Table([list(pages) for pages in table.pages], table.salt, list(table.digests), table.sealed)

    def release(self, table: Table) -> None:
        """Give all pages back, the last first, so that beginnings are kept longest."""
        for group, pages in zip(self.groups, table.pages):
            while pages:
                page = pages.pop()
                if page != GONE:
                    group.release(page)
        table.sealed = 0

    def trim(self, table: Table, num_tokens: int) -> None:
        """Give back the pages behind the first num_tokens: they were reserved for tokens that did not come."""
        keep = self.pages_for(num_tokens)
        for group, pages in zip(self.groups, table.pages):
            while len(pages) > keep:
                group.release(pages.pop())

    def _digest(self, table: Table, tokens: list[int], upto: int) -> None:
        size, digests = self.page_size, table.digests
        for i in range(len(digests), upto):
            before = digests[-1] if i else table.salt
            packed = array("q", tokens[i * size : (i + 1) * size]).tobytes()
            digests.append(blake2b(packed, digest_size=16, key=before[:64]).digest())

    def check(self, tables: Iterable[Table]) -> None:
        """Every page is free, shareable or owned as often as tables say. Raises AssertionError otherwise."""
        tables = list(tables)
        for g, group in enumerate(self.groups):
            owners = Counter(page for table in tables for page in table.pages[g] if page != GONE)
            free = set(group.free)
            assert len(free) == len(group.free), f"group {g}: a page is free twice"
            assert not free & set(group.idle), f"group {g}: a page is free and shareable"
            for page in range(group.num_pages):
                count = owners.get(page, 0)
                assert group.counts[page] == count, f"group {g}: page {page} is owned {count} times, counted otherwise"
                waits = (page in free) + (page in group.idle)
                assert waits == (count == 0), f"group {g}: page {page} with {count} owners is leaked or owned twice"
                content = group.content[page]
                assert content is None or group.by_digest[content[0]] == page, f"group {g}: page {page} is misfiled"
            assert len(group.by_digest) == sum(content is not None for content in group.content)
            for table in tables:
                own = [page for page in table.pages[g] if page != GONE]
                assert len(set(own)) == len(own), f"group {g}: a table owns a page twice"
