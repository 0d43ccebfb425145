// Show the contacts in a database, and move one to another city:
//
//     node contacts.mjs HOST:PORT [NAME CITY]

import { classOf, decodeRecord, encodeRecord, oidsInRoot, schema } from "./records.mjs";
import { hex, oidFromNumber, Zeod } from "./zeod.mjs";

const contacts = schema("contacts.proto");
const AddressBookPB = contacts.lookupType("contacts.AddressBookPB");
const ContactPB = contacts.lookupType("contacts.ContactPB");

async function main(address, name, city) {
  const zeod = await Zeod.connect(address);
  try {
    const book = await zeod.load(await bookIn(zeod));
    const { state, oidOf } = decodeRecord(book.data, AddressBookPB);
    const found = await Promise.all(state.contacts.map(async (reference) => read(await zeod.load(oidOf(reference)))));
    const names = new Map(found.map((contact) => [hex(contact.oid), contact.state.name]));
    for (const contact of found) console.log(line(contact, names));
    if (name !== undefined) await move(zeod, found.find((contact) => contact.state.name === name), name, city);
  } finally {
    zeod.close();
  }
}

async function bookIn(zeod) {
  const root = await zeod.load(oidFromNumber(0)); // the root's oid is 0 in every database
  const oid = oidsInRoot(root.data).get("book");
  if (oid === undefined) throw new Error("there is no `book` in the root of this database");
  return oid;
}

function read(revision) {
  return { ...revision, class: classOf(revision.data), ...decodeRecord(revision.data, ContactPB) };
}

function line({ state, oidOf, class: className }, names) {
  const guardians = state.guardians.map((reference) => names.get(hex(oidOf(reference))));
  const where = state.address ? `${state.address.street}, ${state.address.city}` : "no address";
  return `${state.name} (${className}): ${where}; guardians: ${guardians.join(", ") || "none"}`;
}

async function move(zeod, contact, name, city) {
  if (contact === undefined) throw new Error(`there is no contact ${name}`);
  contact.state.address ??= { street: "" };
  contact.state.address.city = city;
  contact.state.seen = Number(contact.state.seen) + 1;
  const { oid, serial } = contact;
  const tid = await zeod.commit([{ oid, serial, data: encodeRecord(contact, ContactPB) }], `moved ${name} to ${city}`);
  console.log(`moved ${name} to ${city} in transaction ${hex(tid)}`);
}

const [address, name, city] = process.argv.slice(2);
if (address === undefined || (name !== undefined && city === undefined)) {
  console.error("usage: node contacts.mjs HOST:PORT [NAME CITY]");
  process.exit(2);
}
main(address, name, city).catch((error) => {
  console.error(`contacts: ${error.message}`);
  process.exit(1);
});
