"""How flat programs are built from derived graphs; `altprop.passes.flatten` is the pass."""
