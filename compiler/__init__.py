"""The compiler: capture, and the pipeline that orders the passes."""
