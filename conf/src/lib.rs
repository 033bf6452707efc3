//! Configuration schema, parser and annotated examples of mpipd.
