"""Make a book with two contacts in a database, or show what is in it: `python fill.py zeo://localhost:9672`."""

import sys

from objects import AddressBook, Contact

import zeo_client


def main(url: str) -> None:
    """Fill the database if there is no book in it, and show the contacts."""
    with zeo_client.open(url) as db, db.transaction() as conn:
        root = conn.root()
        if "book" not in root:
            ann = Contact(name="Ann", address={"street": "1 Road", "city": "Xanten"})
            bob = Contact(name="Bob", guardians=[ann])
            root["book"] = AddressBook(contacts=[ann, bob])
        for contact in root["book"].contacts:
            guardians = ", ".join(guardian.name for guardian in contact.guardians)
            print(f"{contact.name}, {contact.address.city or 'nowhere'}; guardians: {guardians or 'none'}")


if __name__ == "__main__":
    main(sys.argv[1])
