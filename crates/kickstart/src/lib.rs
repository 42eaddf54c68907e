//! The kickstart language: lexer, commands, sections, includes through a caller-supplied loader. Pure.
//!
//! Parsing never fails: it returns a [`Kickstart`] and [`Diagnostic`]s. The parser takes text, never a path;
//! what `%include` names is asked of a [`Loader`].

mod ast;
mod diagnostic;

pub use ast::*;
pub use diagnostic::*;
