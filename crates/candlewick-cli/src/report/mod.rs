//! What people see of a run of `bench`: on the terminal, as Markdown, as a page.

mod chart;
mod figure;
pub mod grid;
pub mod html;
mod tables;
pub mod terminal;
