//! Metrics of a running daemon: each that a document, an alert or the dashboard names is exported, each that is
//! exported is on its page, and nobody from outside makes more series than the page says.

mod hostile;
mod named;
mod scrape;
mod values;
