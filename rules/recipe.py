"""Recipes: settings under which a rule trains, kept with the rule as data; see `altprop.ir.recipe`."""

from altprop.ir.recipe import Recipe

__all__ = ["Recipe"]
