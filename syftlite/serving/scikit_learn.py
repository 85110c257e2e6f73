"""scikit-learn estimators as graphs: linear and logistic models, multilayer perceptrons, scalers, and pipelines of them.

    what has coef_ and intercept_      linear; a classifier's scores become probabilities at the client
    MLPClassifier, MLPRegressor        linear layers and their activation
    *Scaler                            affine, which is folded into the layer that follows
    Pipeline                           one after the other

A graph gives what predict_proba gives (of two classes the second's), or decision_function where there is none, or predict. A label is a
place in the estimator's classes_.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from syftlite.errors import UnsupportedLayerError
from syftlite.serving.graph import Builder, Graph, Input

PROBABILITIES = ("LogisticRegression", "LogisticRegressionCV")
LINEAR = (
    *PROBABILITIES, "LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "BayesianRidge",
    "HuberRegressor", "SGDRegressor", "LinearSVR", "RidgeClassifier", "RidgeClassifierCV", "LinearSVC", "Perceptron", "SGDClassifier",
    "PassiveAggressiveClassifier",
)  # fmt: skip
SCALERS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "StandardScaler": lambda s: _scaled(s, s.mean_ if s.with_mean else None, s.scale_ if s.with_std else None),
    "RobustScaler": lambda s: _scaled(s, s.center_ if s.with_centering else None, s.scale_ if s.with_scaling else None),
    "MaxAbsScaler": lambda s: _scaled(s, None, s.scale_),
    "MinMaxScaler": lambda s: (s.scale_, s.min_),
}
"""By class: (scale, shift) of x * scale + shift."""
ACTIVATIONS = {"relu": "relu", "logistic": "sigmoid", "tanh": "tanh", "softmax": "softmax", "identity": "identity"}


def from_sklearn(estimator: Any, *, check: bool = True) -> Graph:
    """The graph of a fitted ``estimator``. Raises `UnsupportedLayerError`, by name of the step, for one that has no form here."""
    steps = _steps("", estimator)
    width = getattr(steps[0][1], "n_features_in_", None)
    if width is None:
        raise UnsupportedLayerError(steps[0][0], "it is not fitted: call fit() first")
    build = Builder(Input((int(width),)))
    at = "input"
    for i, (name, step) in enumerate(steps):
        at = _add(build, at, name, step, last=i == len(steps) - 1)
    graph = build.graph(at)
    if check:
        rows = _rows(steps[0][1], int(width))
        graph.must_agree(lambda x: _original(estimator)(np.asarray(x, dtype=np.float64)), rows)
    return graph


def _steps(name: str, estimator: Any) -> list[tuple[str, Any]]:
    if type(estimator).__name__ != "Pipeline":
        return [(name or type(estimator).__name__, estimator)]
    return [found for inner, step in estimator.steps if step not in (None, "passthrough") for found in _steps(inner, step)]


def _add(build: Builder, at: str, name: str, step: Any, *, last: bool) -> str:
    kind = type(step).__name__
    if kind in SCALERS:
        scale, shift = SCALERS[kind](step)
        if getattr(step, "clip", False):
            raise UnsupportedLayerError(name, f"{kind} with clip=True has no form in a served model")
        return build.add("affine", name, [at], {"scale": scale, "shift": shift})
    if not last:
        raise UnsupportedLayerError(name, f"{kind} in the middle of a pipeline has no form; scalers do: {', '.join(SCALERS)}")
    if kind in ("MLPClassifier", "MLPRegressor"):
        return _perceptron(build, at, name, step)
    if kind not in LINEAR:
        known = ", ".join(("MLPClassifier", "MLPRegressor", *LINEAR))
        raise UnsupportedLayerError(name, f"{kind} has no form in a served model; these have: {known}")
    coefficients = np.atleast_2d(step.coef_)
    intercept = np.broadcast_to(np.asarray(step.intercept_, dtype=float).reshape(-1), (len(coefficients),)).copy()
    at = build.add("linear", name, [at], {"weight": coefficients, "bias": intercept})
    if kind in PROBABILITIES:
        at = build.add("sigmoid" if len(coefficients) == 1 else "softmax", f"{name} probabilities", [at])
    return at


def _perceptron(build: Builder, at: str, name: str, step: Any) -> str:
    for i, (weight, bias) in enumerate(zip(step.coefs_, step.intercepts_, strict=True), 1):
        at = build.add("linear", f"{name} layer {i}", [at], {"weight": weight.T, "bias": bias})
        activation = step.activation if i < len(step.coefs_) else step.out_activation_
        if activation not in ACTIVATIONS:
            raise UnsupportedLayerError(f"{name} layer {i}", f"activation={activation!r} has no form in a served model")
        at = build.add(ACTIVATIONS[activation], f"{name} {activation} {i}", [at])
    return at


def _scaled(step: Any, center: Any, scale: Any) -> tuple[Any, Any]:
    """(x - center) / scale."""
    width = step.n_features_in_
    factor = np.ones(width) if scale is None else 1 / np.asarray(scale)
    return factor, None if center is None else -np.asarray(center) * factor


def _rows(first: Any, width: int) -> Any:
    """A few rows of about the size that the first step was fitted to."""
    spread = getattr(first, "data_range_", getattr(first, "scale_", None))
    center = getattr(first, "mean_", getattr(first, "center_", getattr(first, "data_min_", 0.0)))
    grid = np.linspace(-1.0, 1.0, 4 * width).reshape(width, 4).T.copy()
    return (grid * (1.0 if spread is None else spread) + (0.0 if center is None else center)).astype(np.float32)


def _original(estimator: Any) -> Callable[[Any], Any]:
    """What the graph is compared with."""

    def call(x: Any) -> Any:
        if hasattr(estimator, "predict_proba"):
            scores = np.asarray(estimator.predict_proba(x))
            return scores[:, 1:] if scores.shape[1] == 2 else scores
        scores = np.asarray((estimator.decision_function if hasattr(estimator, "decision_function") else _out(estimator))(x))
        return scores.reshape(len(x), -1)

    return call


def _out(estimator: Any) -> Callable[[Any], Any]:
    return estimator.transform if not hasattr(estimator, "predict") else estimator.predict  # type: ignore[no-any-return]
