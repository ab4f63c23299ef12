"""One learning step: labels out of the core, into river and the user's models, frozen models back.

Runs wherever its caller runs: in the worker's thread, or by hand. It never touches an entry.
"""
from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from adaptcache import _core
from adaptcache.learn import compiled, river_models
from adaptcache.learn.predictor import NAMES, Guest, named

BATCH = 256
PUBLISH_EVERY = 1000    # labels between two published models, once there are some
FIRST = 300
DENSE = 4000            # labels that river learns from one by one; later every THIN-th
THIN = 8
DENSE_EXAMPLES = 40_000     # of the stack, learned one by one; later about every THIN_EXAMPLES-th
THIN_EXAMPLES = 16
PUBLISH_EXAMPLES = 1000     # between two published stacks; fewer in the beginning
RIPE = 32               # labels of a user's model between two compiled rules, at least; as many as its tree has nodes
RECOMPILE = 4096        # between two attempts to compile what could not be compiled
MOST_ROUNDS = 64        # values of one look at the guard's books, at most


class Trainer:
    """River's models and the user's over one brain, and the drift alarm."""

    SHORT: Final = 32       # labels, questions and examples of a step that must not take long
    ROUND: Final = 32       # protected requests, or labels, that make one value for a drift detector

    def __init__(self, brain: _core.Brain, *, river: bool, models: Sequence[Any] = ()) -> None:
        self.brain = brain
        self.guests = [Guest(model) for model in models]
        self.scope = river_models.Scope()
        self.hazards = river_models.Hazards(self.scope) if river else None
        self.leaves = river_models.Leaves() if river else None
        self.stack = river_models.Stack() if river else None
        self.stacked = 0        # examples of the stack that were learned
        self.stack_published = 0
        # Two things are watched: what the mixture costs beyond the best static TTL, and the share of protected
        # requests that the guard lost, beyond alpha.
        self.drift = {"cost": river_models.adwin(), "guard": river_models.adwin()}
        self.alarms = {"cost": 0, "guard": 0}
        self.books = (0, 0.0)   # N, losses less what alpha allows for, when last looked at
        self.deaf = False       # no alarm is raised, for ablations
        self.calm = 0           # rounds since the last alarm
        self.learned = 0
        self.published = 0
        self.seconds = 0.0
        self.kept = 0           # leaves of a restored tree that river's own has not caught up with
        self.alike = False      # the keys that a restored state knew hash alike in every process
        self.patience = 0       # labels learned by when it gives way all the same
        # Held by whoever changes the models: a step, and who gathers or installs state.
        self.lock = threading.RLock()
        self._x = np.empty((BATCH, _core.FEATURE_COUNT), np.float32)
        self._info = np.empty((BATCH, 6), np.float32)
        self._terms = np.empty((BATCH, _core.TERM_COUNT), np.float32)
        self._outcomes = np.empty((BATCH, 3), np.uint8)
        self._who = np.empty((BATCH, 2), np.uint32)
        self._compile()

    @property
    def names(self) -> list[str]:
        """What the user's models are called, in the order of their experts."""
        return [guest.name for guest in self.guests]

    @property
    def asks(self) -> bool:
        """Must a model of the user's be asked from outside the core?"""
        return not all(guest.inline for guest in self.guests)

    @property
    def recovering(self) -> bool:
        """Is an alarm recent?"""
        return any(self.alarms.values()) and self.calm < 30

    @property
    def busy(self) -> bool:
        """Is there anything to train outside the core?"""
        return self.hazards is not None or bool(self.guests)

    def step(self, protected: int = 0, over: float = 0.0, most: int = 0) -> int:
        """Take what the core has to offer, once around; how many labels and questions there were.

        most: no more than so many of each kind, a few milliseconds' worth; 0 = a batch, and all examples of the stack.

        protected, over: the guard's books as they are now: N, and losses less what alpha allows for.
        """
        with self.lock:
            began = time.perf_counter()
            done = self._watch()
            self._watch_guard(protected, over)
            if self.asks:
                done += self._answer(most or BATCH)
            if self.busy:
                done += self._train(most or BATCH)
                self._compile()
            if self.stack is not None:
                done += self._weigh(self.stack, most)
            self.seconds += time.perf_counter() - began
            return done

    def _watch(self) -> int:
        excess = self.brain.take_excess()
        for value in excess:
            self.calm += 1
            self._heard("cost", value)
        return len(excess)

    def _watch_guard(self, protected: int, over: float) -> None:
        """One value for every ROUND protected requests; all of them the mean, where many came at once."""
        since = protected - self.books[0]
        if since < self.ROUND:
            return
        error = (over - self.books[1]) / since
        self.books = (protected, over)
        for _ in range(min(since // self.ROUND, MOST_ROUNDS)):
            self._heard("guard", error)

    def _heard(self, cause: str, value: float) -> None:
        drift = self.drift[cause]
        before = drift.estimation
        drift.update(value)
        # Getting better is no reason to forget.
        if drift.drift_detected and drift.estimation > before and not self.deaf:
            self.alarms[cause] += 1
            self.calm = 0
            self.brain.alarm()

    def _answer(self, most: int) -> int:
        n = self.brain.take_asks(self._who[:most], self._x[:most])
        for row in range(n):
            x = named(self._x[row].tolist(), self.brain.feature_names)
            for number, guest in enumerate(self.guests):
                if not guest.inline:
                    self.brain.answer(int(self._who[row, 0]), int(self._who[row, 1]), number, guest.seconds(x))
        return n

    def _compile(self) -> None:
        """Bring the rules of those models up to date that can be compiled; the others are asked."""
        places: dict[str, int] = {}
        for number, guest in enumerate(self.guests):
            if guest.fresh < guest.ripe:
                continue
            # By number, and so by whatever name the application gave.
            places = places or {name: int(at) for name, at in named(range(len(NAMES)), self.brain.feature_names).items()}
            rule = compiled.rule(guest.model, places)
            guest.inline, guest.fresh = rule is not None, 0
            if rule is None:
                # A model of another kind stays one; a tree may be pruned.
                self.brain.retract_rule(number)
                guest.ripe = RECOMPILE
            else:
                self.brain.publish_rule(number, rule.feature, rule.threshold, rule.left, rule.right, rule.rows, rule.exponential)
                guest.ripe = max(RIPE, len(rule.feature))
        self.brain.want_asks(self.asks)

    def _train(self, most: int) -> int:
        n = self.brain.take_labels(self._x[:most], self._info[:most])
        x, info = self._x[:n], self._info[:n].tolist()
        for features, (_, seen, _, _, _, y) in zip(x.tolist() if self.guests else (), info, strict=False):
            if y != 2:
                told = named(features, self.brain.feature_names)
                for guest in self.guests:
                    guest.learn(told, seen)
        if self.hazards is not None and self.leaves is not None:
            self.scope.learn(x)
            # Until the scale is known, nothing is learned on it.
            for z, (breakeven, seen, base, last, _, y) in zip(self.scope.scaled(x) if self.scope.n >= 50 else (), info, strict=False):
                self.hazards.learn(z, int(base), int(last), y == 1)
                self.leaves.learn(z, river_models.log_wait(breakeven, seen if y == 1 else math.inf))
                self.learned += 1
        if self.hazards is not None:
            if self.learned >= DENSE:
                self.brain.thin_labels(THIN)
            if self.learned - self.published >= (PUBLISH_EVERY if self.published else FIRST):
                self.publish()
        return n

    def _weigh(self, stack: river_models.Stack, most: int) -> int:
        """The stack learns from what came in, and is published now and then."""
        done = 0
        rows = most or BATCH
        while n := self.brain.take_examples(self._terms[:rows], self._outcomes[:rows]):
            stack.learn(self._terms[:n], self._outcomes[:n])
            done += n
            if most:
                break
        self.stacked += done
        if self.stacked >= DENSE_EXAMPLES:
            self.brain.thin_examples(THIN_EXAMPLES)
        if self.stacked - self.stack_published >= min(PUBLISH_EXAMPLES, max(100, self.stacked // 4)):
            self.publish_stack()
        return done

    def publish_stack(self) -> None:
        """Swap in the stack as it is now."""
        if self.stack is not None:
            self.brain.publish_stack(*self.stack.freeze())
            self.stack_published = self.stacked

    def publish(self) -> None:
        """Freeze what river knows and swap it in."""
        if self.hazards is None or self.leaves is None or self.scope.n < 50:
            return
        low, high = self.scope.bounds()
        weight, bias = self.hazards.freeze()
        self.brain.publish_line(weight, bias, low, high)
        if not self.kept or self.leaves.size >= self.kept or self.learned >= self.patience:
            frozen = self.leaves.freeze(self.scope, self.brain)
            if frozen is not None:
                self.brain.publish_tree(*frozen, low, high)
                self.kept = 0
        self.published = self.learned

    def state(self) -> dict[str, Any] | None:
        """River's linear models and their scaling, as plain numbers; None without river. The tree is the core's."""
        if self.hazards is None:
            return None
        return {**self.scope.state(), "groups": self.hazards.state(), "learned": self.learned}

    def stack_state(self) -> dict[str, Any] | None:
        """The stack's regression as plain numbers; None without river."""
        return None if self.stack is None else {**self.stack.state(), "examples": self.stacked}

    def restore(self, river: dict[str, Any] | None, tree: dict[str, Any] | None, stack: dict[str, Any] | None) -> None:
        """Go on from what `state` and `stack_state` gave, and from a published tree (nodes, low, high, learned).

        Linear models go on as they were. A Hoeffding tree's estimator is not saved: the frozen tree serves,
        and learns in its leaves, until a new one has as many leaves or has seen as many labels.
        """
        if self.hazards is None or self.leaves is None:
            return
        if river is not None:
            self.scope.restore(river)
            self.hazards.restore(river["groups"])
            self.learned = self.published = river["learned"]
            if self.learned >= DENSE:
                self.brain.thin_labels(THIN)
        if stack is not None and self.stack is not None and stack["examples"]:
            self.stack.restore(stack)
            self.stacked = stack["examples"]
            if self.stacked >= DENSE_EXAMPLES:
                self.brain.thin_examples(THIN_EXAMPLES)
            self.publish_stack()
        if tree is not None:
            nodes = tree["nodes"]
            now = self.brain.tree()
            if now is None or now[0] != nodes.tobytes():
                self.leaves = river_models.Leaves()
                self.kept = int((nodes["feature"] < 0).sum())
                self.patience = self.learned + tree["learned"]
                feature, threshold, left, right = (
                    np.ascontiguousarray(nodes[name]) for name in ("feature", "threshold", "left", "right"))
                self.brain.publish_tree(feature, threshold, left, right, np.array(tree["low"], np.float32),
                                        np.array(tree["high"], np.float32))
        self.publish()
