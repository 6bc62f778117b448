//! What xl says about names and numbers of guests that are not there.

/// An operand that names no guest. Exit 1.
#[must_use]
pub fn invalid_domain(operand: &str) -> String {
    format!("{operand} is an invalid domain identifier (rc=-6)\n")
}

/// The same from `block-list`, which goes on and exits with 0.
#[must_use]
pub fn invalid_domain_of_block_list(operand: &str) -> String {
    format!("{operand} is an invalid domain identifier\n")
}

/// A number that no guest has, to `list`. Exit 1.
#[must_use]
pub fn no_such_domain(operand: &str) -> String {
    format!("Error: Domain '{operand}' does not exist.\n")
}

/// A name that no guest has, to `domid`. Exit 1.
#[must_use]
pub fn no_domid(name: &str) -> String {
    format!("Can't get domid of domain name '{name}', maybe this domain does not exist.\n")
}

/// An operand of `domname` that is no number. Exit 1.
#[must_use]
pub fn no_number() -> &'static str {
    "Invalid domain id.\n\n"
}

/// A number that no guest has, to `domname`. Exit 1.
#[must_use]
pub fn no_name(domid: u32) -> String {
    format!("Can't get domain name of domain id '{domid}', maybe this domain does not exist.\n")
}
