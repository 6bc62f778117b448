//! What xl prints, held against stock's own output in `golden/`.

mod json;
mod text;
