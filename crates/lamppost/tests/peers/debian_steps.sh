# What the Debian that tests/debian_package.rs boots does, as root; what stands between two marks is
# judged there. No step ends the others.
mark() { echo "== $*"; }
wait_for() {
    local tries=0
    until grep --quiet --recursive "^$1" "$2" 2>/dev/null || [ $tries = 100 ]; do
        tries=$((tries + 1))
        read -r -t 0.1 _ <> <(:)
    done
}
main_pid() { systemctl show --property MainPID --value lamppost; }
file=/etc/lamppost/lamppost.toml

mark installed
dpkg --install /root/first.deb >/dev/null 2>&1
echo "dpkg $?"
systemctl is-active lamppost
systemctl is-enabled lamppost

mark powers
sed -i 's/^#domains = .*/domains = ["lamppost.test"]/; /^\[mail.greylist\]/,/^#enabled/ s/^#enabled = true/enabled = false/; s/127.0.0.1:2525/127.0.0.1:25/' $file
systemctl restart lamppost
echo "restart $?"
grep -E '^(Cap|NoNewPrivs|Seccomp:)' "/proc/$(main_pid)/status"
stat --format %U "/proc/$(main_pid)"
systemd-analyze security --threshold=20 --no-pager lamppost | tail -n 1

mark reload
echo '# mine' >> $file
systemctl reload lamppost
echo "good $?"
cp --preserve=all $file /root/good.toml
echo 'nonsense = 1' >> $file
systemctl reload lamppost 2>/dev/null
echo "wrong $?"
systemctl is-active lamppost
journalctl --unit lamppost --no-pager | grep --quiet nonsense && echo 'told'
cp --preserve=all /root/good.toml $file

mark mail
lamppost account add you@lamppost.test --generate | head -c 27
echo
exec 3<>/dev/tcp/127.0.0.1/25
read -r -t 20 greeting <&3
for line in 'HELO x.test' 'MAIL FROM:<a@x.test>' 'RCPT TO:<you@lamppost.test>' DATA 'Subject: hello\r\n\r\nhello\r\n.' QUIT; do
    printf "$line\r\n" >&3
    read -r -t 20 reply <&3
    echo "${reply%% *}"
done
exec 3>&-
new=/var/lib/lamppost/mail/lamppost.test/you/Maildir/new
wait_for hello $new
grep --count '^hello' $new/*

mark sendmail
useradd ann
useradd --groups www-data bob
lamppost compat install /usr/local/sbin >/dev/null
echo "compat $?"
stat --format '%A %U %n' /run/lamppost /run/lamppost/submit.sock
send() { printf "To: you@lamppost.test\nSubject: x\n\nsent by $1\n" | runuser -u "$1" -- /usr/local/sbin/sendmail -t -i; }
send ann
echo "sent $?"
wait_for 'sent by ann' $new
cat $new/* | grep --count '^Return-Path: <ann@'
systemctl stop lamppost
send ann 2>/dev/null
echo "stopped $?"
mkdir /etc/systemd/system/lamppost.service.d
cat > /etc/systemd/system/lamppost.service.d/group.conf <<'END'
[Service]
SupplementaryGroups=www-data
SystemCallFilter=@chown
END
sed -i 's/^#socket-mode = .*/socket-mode = "0660"/; s/^#socket-group = .*/socket-group = "www-data"/' $file
systemctl daemon-reload
systemctl start lamppost
send ann 2>/dev/null
echo "ann $?"
send bob
echo "bob $?"
wait_for 'sent by bob' $new
rm -r /etc/systemd/system/lamppost.service.d
cp --preserve=all /root/good.toml $file
systemctl daemon-reload
systemctl restart lamppost
# So many starts in so short a time are what these steps want.
systemctl reset-failed lamppost
lamppost compat install --remove /usr/local/sbin >/dev/null
ls /usr/local/sbin

mark doctor
lamppost doctor --no-dns | grep --invert-match '^ok\|^WARN\|help:'
echo "doctor ${PIPESTATUS[0]}"

mark credentials
sed -i 's/^#self-signed = false/self-signed = true/; s/^tls = "off"/tls = "starttls"/' $file
systemctl restart lamppost
echo "restart $?"
install --mode 0600 /var/lib/lamppost/tls/certificate.pem /var/lib/lamppost/tls/key.pem /root
sed -i 's/^self-signed = true/self-signed = false/; s/^#certificate = ""/certificate = "credential:tls-certificate"/; s/^#key = ""/key = "credential:tls-key"/' $file
systemctl restart lamppost 2>/dev/null
echo "without $?"
mkdir /etc/systemd/system/lamppost.service.d
cat > /etc/systemd/system/lamppost.service.d/tls.conf <<'END'
[Service]
LoadCredential=tls-certificate:/root/certificate.pem
LoadCredential=tls-key:/root/key.pem
END
systemctl daemon-reload
systemctl restart lamppost
echo "with $?"
systemctl reload lamppost
echo "reload $?"
lamppost status | grep --ignore-case --count 'starttls *listening'
rm -r /etc/systemd/system/lamppost.service.d
cp --preserve=all /root/good.toml $file
systemctl daemon-reload
systemctl restart lamppost
echo "back $?"

mark upgraded
before=$(main_pid)
dpkg --install /root/second.deb >/dev/null 2>&1 </dev/null
echo "dpkg $?"
systemctl is-active lamppost
[ "$before" != "$(main_pid)" ] && echo 'restarted'
tail -n 1 $file
lamppost account list
ls $new | wc -l

mark refused
touch /root/connecting
while [ -e /root/connecting ]; do
    { (exec 3<>/dev/tcp/127.0.0.1/25) 2>/dev/null && echo taken; } || echo refused
done > /root/tries &
systemctl restart lamppost
echo "restart $?"
before=$(main_pid)
dpkg --install /root/second.deb >/dev/null 2>&1 </dev/null
echo "dpkg $?"
[ "$before" != "$(main_pid)" ] && echo 'restarted'
before=$(main_pid)
lamppost upgrade
[ "$before" = "$(main_pid)" ] && echo 'the same process'
rm /root/connecting
wait
sort /root/tries | uniq

mark switched off
systemctl disable --quiet --now lamppost
dpkg --install /root/second.deb >/dev/null 2>&1
echo "dpkg $?"
systemctl is-active lamppost
systemctl is-enabled lamppost
systemctl enable --quiet --now lamppost
systemctl is-active lamppost

mark removed
dpkg --remove lamppost >/dev/null 2>&1
echo "dpkg $?"
systemctl is-active lamppost
ls $file
ls $new | wc -l

mark back
dpkg --install /root/second.deb >/dev/null 2>&1
echo "dpkg $?"
systemctl is-active lamppost
lamppost account list

mark purged
dpkg --purge lamppost >/dev/null 2>&1
echo "dpkg $?"
systemctl is-active lamppost
ls -d /etc/lamppost /var/lib/lamppost /run/lamppost /usr/bin/lamppost /usr/lib/lamppost 2>/dev/null
find /etc/systemd /var/lib/systemd -name '*lamppost*'
systemctl list-units --all --no-legend 'lamppost*'

mark again
dpkg --install /root/first.deb >/dev/null 2>&1
echo "dpkg $?"
systemctl is-active lamppost
mark log
# Read by people, when something above is wrong.
journalctl --unit lamppost --no-pager --lines 30
mark end
