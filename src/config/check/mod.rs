//! Raw shapes → checked and compiled. One file per family of rules.
