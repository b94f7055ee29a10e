//! For people: excerpts with carets.
