"""Which version of altprop this is."""

VERSION = "0.2.0"
