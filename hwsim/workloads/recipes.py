"""Recipes of workloads: by a short text, and the same layers in a baseline's method."""

from vq.errors import RecipeError, bulleted
from vq.recipe.recipe import Recipe

__all__ = ["baseline_recipe", "recipe_of"]


def recipe_of(text: str) -> Recipe:
    """Make the recipe that ``text`` names.

    The path of a YAML recipe (``.yaml``, ``.yml``), or one method for all layers, perhaps with its
    settings: ``int4``, ``ssvq:d=8,k=16``.

    Raises
    ------
    RecipeError
        If the file cannot be read, or a method, a setting or a value is not one.

    Examples
    --------
    >>> recipe_of("vq:d=4,k=256").rules["*"].k
    256
    """
    if text.endswith((".yaml", ".yml")):
        return Recipe.from_yaml(text)
    method, _, settings = text.partition(":")
    values: dict[str, str] = {}
    problems = []
    for part in settings.split(",") if settings else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key:
            problems.append(f"setting must be KEY=VALUE, not {part!r}")
        elif key in values:
            problems.append(f"{key} must be given once, not twice")
        values[key] = value
    if problems:
        raise RecipeError(bulleted(f"recipe {text!r}", problems))
    return Recipe.from_json({"*": {**values, "method": method.strip()}})


def baseline_recipe(recipe: Recipe, method: str) -> Recipe:
    """The same layers as a baseline of :mod:`hwsim.measure.baselines`; kept ones stay kept."""
    chosen = recipe_of(method).rules["*"]
    return Recipe({key: rule and chosen for key, rule in recipe.rules.items()})
