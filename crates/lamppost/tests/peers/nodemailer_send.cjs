// Sends a file as a message with nodemailer; prints the refusal if there is one.

const fs = require("fs");
const { parseArgs } = require("util");
const nodemailer = require("nodemailer");

const text = { type: "string" };
const { values, positionals } = parseArgs({
  options: { host: text, port: text, tls: text, ca: text, user: text, password: text, from: text, to: text },
  allowPositionals: true,
});

nodemailer
  .createTransport({
    host: values.host,
    port: Number(values.port),
    secure: values.tls === "implicit",
    requireTLS: values.tls === "starttls",
    tls: { ca: fs.readFileSync(values.ca) },
    auth: { user: values.user, pass: values.password },
  })
  .sendMail({
    envelope: { from: values.from, to: values.to },
    raw: fs.readFileSync(positionals[0]),
  })
  .then(
    (sent) => console.log(sent.response),
    (error) => {
      console.log(error.message);
      process.exit(1);
    },
  );
