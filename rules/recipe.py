"""Recipes: settings under which a rule trains, kept with the rule as data; see `altprop.ir.training_recipe`."""

from altprop.ir.training_recipe import Recipe

__all__ = ["Recipe"]
