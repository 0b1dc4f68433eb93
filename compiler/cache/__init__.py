"""A cache across processes: what follows capture, kept in files by all that it depends on.

`key` says on what a compilation depends, `fingerprint` what code of a user's own does, `folder` where files lie and who
may have written them, `record` what of a derived graph is written, and `store` puts them together.
"""
