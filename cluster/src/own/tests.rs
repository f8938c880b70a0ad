//! Rules of ownership, one by one.
