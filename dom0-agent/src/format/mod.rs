//! The exact text and JSON that xl prints, from plain typed input.
