//! Definition file, lowering, defaults and step hashing. Pure.
