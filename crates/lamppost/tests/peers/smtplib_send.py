"""Sends a file as a message with Python's smtplib; prints the refusal if there is one."""

import argparse
import smtplib
import ssl
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--tls", choices=["off", "starttls", "implicit"], default="off")
parser.add_argument("--ca")
parser.add_argument("--user")
parser.add_argument("--password")
parser.add_argument("--from", dest="sender", required=True)
parser.add_argument("--to", required=True)
parser.add_argument("message")
options = parser.parse_args()

context = ssl.create_default_context(cafile=options.ca) if options.ca else None
try:
    if options.tls == "implicit":
        smtp = smtplib.SMTP_SSL(options.host, options.port, context=context, timeout=20)
    else:
        smtp = smtplib.SMTP(options.host, options.port, timeout=20)
    with smtp:
        if options.tls == "starttls":
            smtp.starttls(context=context)
        if options.user:
            smtp.login(options.user, options.password)
        with open(options.message, "rb") as message:
            # smtplib mends the line ends of text, and leaves bytes as they are.
            lines = message.read().splitlines()
        smtp.sendmail(options.sender, [options.to], b"\r\n".join(lines) + b"\r\n")
except smtplib.SMTPException as error:
    print(error)
    sys.exit(1)
