"""How local updates are derived; `altprop.passes.derive_updates` is the pass."""
