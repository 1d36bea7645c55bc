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
state=/var/lib/lamppost
new=$state/mail/lamppost.test/you/Maildir/new
roles='front policy queue delivery control'
# The processes of the roles; and each with its user, how many sets of capabilities it has, whether it may
# get more, and whether its system calls are filtered.
children() { cat "/proc/$(main_pid)/task/$(main_pid)/children"; }
running() {
    local pid
    for pid in $(children); do
        echo "$(tr '\0' ' ' < "/proc/$pid/cmdline")$(id --name --user "$(awk '/^Uid:/ { print $2 }' "/proc/$pid/status")")" \
            "$(awk '/^Cap/ { power = power + ($2 != "0000000000000000") } /^NoNewPrivs:|^Seccomp:/ { rest = rest " " $2 } END { print power + 0 rest }' "/proc/$pid/status")"
    done | sort
}
deliver() {
    local to=${2:-you@lamppost.test}
    exec 3<>/dev/tcp/127.0.0.1/25
    read -r -t 20 greeting <&3
    for line in 'HELO x.test' 'MAIL FROM:<a@x.test>' "RCPT TO:<$to>" DATA "Subject: hello\\r\\n\\r\\n$1\\r\\n." QUIT; do
        printf "$line\r\n" >&3
        read -r -t 20 reply <&3
        echo "${reply%% *}"
    done | tr '\n' ' '
    exec 3>&-
    wait_for "$1" $new
    cat $new/* | grep --count "^$1"
}

mark installed
dpkg --install /root/first.deb >/dev/null 2>&1
echo "dpkg $?"
systemctl is-active lamppost
systemctl is-enabled lamppost

mark powers
sed -i '/^\[mail\]/,/^#domains/ s/^#domains = .*/domains = ["lamppost.test"]/; /^\[mail.greylist\]/,/^#enabled/ s/^#enabled = true/enabled = false/; s/127.0.0.1:2525/127.0.0.1:25/' $file
systemctl restart lamppost
echo "restart $?"
grep -E '^(Cap[PEBA]|NoNewPrivs|Seccomp:)' "/proc/$(main_pid)/status"
stat --format %U "/proc/$(main_pid)"
running
systemd-analyze security --threshold=30 --no-pager lamppost | tail -n 1

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
deliver hello

mark apart
for role in $roles; do
    for path in $state/policy/state.db $state/spool/lock $new/* $state/log/* $file; do
        runuser -u lamppost-$role -- cat "$path" >/dev/null 2>&1 && echo "$role ${path#$state/}"
    done
done | sed 's/[0-9]\{6,\}.*//'
useradd ann
useradd --groups www-data bob
useradd --groups lamppost eve
for user in ann eve; do
    runuser -u $user -- lamppost status >/dev/null 2>&1
    echo "$user $?"
done
runuser -u eve -- lamppost queue
runuser -u eve -- lamppost account list 2>/dev/null
echo "accounts $?"

mark hanging
# The supervisor ends what does not end by itself, although it is another user's.
for pid in $(children); do
    case $(tr '\0' ' ' < "/proc/$pid/cmdline") in
        *delivery*) hanging=$pid ;;
        *policy*) policy=$pid ;;
    esac
done
kill -STOP "$hanging"
kill -KILL "$policy"
tries=0
while [ -e "/proc/$hanging" ] && [ $tries -lt 300 ]; do
    tries=$((tries + 1))
    read -r -t 0.1 _ <> <(:)
done
[ -e "/proc/$hanging" ] || echo 'ended'
deliver 'after it'

mark backup
lamppost backup /root/backup >/dev/null
echo "backup $?"
systemctl stop lamppost
lamppost queue check >/dev/null
echo "check $?"
lamppost restore --force /root/backup >/dev/null
echo "restore $?"
rm -r $state.before-* /root/backup
systemctl start lamppost
echo "start $?"
rm $state/restored.toml
lamppost account list
stat --format '%A %U:%G %n' $state/*
cat $new/* | grep --count '^after'

mark sendmail
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
sed -i 's/^#socket-mode = .*/socket-mode = "0660"/; s/^#socket-group = .*/socket-group = "www-data"/' $file
systemctl start lamppost
send ann 2>/dev/null
echo "ann $?"
send bob
echo "bob $?"
wait_for 'sent by bob' $new
cp --preserve=all /root/good.toml $file
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
# Root reads what is its own or another's.
install --owner www-data --mode 0400 /root/certificate.pem /root/key.pem /etc/lamppost
sed -i 's/"credential:tls-certificate"/"\/etc\/lamppost\/certificate.pem"/; s/"credential:tls-key"/"\/etc\/lamppost\/key.pem"/' $file
systemctl reload lamppost
echo "files $?"
rm /etc/lamppost/*.pem
rm -r /etc/systemd/system/lamppost.service.d
cp --preserve=all /root/good.toml $file
systemctl daemon-reload
systemctl restart lamppost
echo "back $?"

mark elsewhere
# Maildirs of an earlier version, below /home.
install --directory --owner lamppost --group lamppost --mode 0700 /home/mail /home/mail/old
mkdir /etc/systemd/system/lamppost.service.d
printf '[Service]\nProtectHome=no\nReadWritePaths=/home/mail\n' > /etc/systemd/system/lamppost.service.d/mail.conf
sed -i '/^\[mail\]/,/^#maildir/ s|^#maildir = .*|maildir = "/home/mail/{domain}/{local}/Maildir"|' $file
systemctl daemon-reload
systemctl restart lamppost
echo "restart $?"
own=$new
new=/home/mail/lamppost.test/you/Maildir/new
deliver elsewhere
new=$own
stat --format '%U %n' /home/mail/*
rm -r /etc/systemd/system/lamppost.service.d
cp --preserve=all /root/good.toml $file
systemctl daemon-reload
systemctl reset-failed lamppost
systemctl restart lamppost

mark homes
# As the guide says.
useradd --create-home --key HOME_MODE=0700 dora
mkdir /etc/systemd/system/lamppost.service.d
printf '[Service]\nProtectHome=no\nReadWritePaths=/home\n' > /etc/systemd/system/lamppost.service.d/homes.conf
sed -i '/^\[mail.system-users\]/,/^#domains/ s/^#domains = .*/domains = ["users.test"]/' $file
systemctl daemon-reload
systemctl restart lamppost
echo "restart $?"
own=$new
new=/home/dora/Maildir/new
deliver homes dora@users.test
new=$own
stat --format '%U:%G %a' /home/dora/Maildir /home/dora/Maildir/new/*
running | grep user
lamppost status --security | grep --count '^user dora .* dora .* none .* yes .* yes '
rm -r /etc/systemd/system/lamppost.service.d
cp --preserve=all /root/good.toml $file
systemctl daemon-reload
systemctl reset-failed lamppost
systemctl restart lamppost

mark without root
# As the guide says.
examples=/usr/share/doc/lamppost/examples
systemctl stop lamppost
sed 's/^ListenStream=.*/ListenStream=127.0.0.1:25/' $examples/lamppost.socket > /etc/systemd/system/lamppost.socket
install -D --mode 0644 $examples/unprivileged.conf /etc/systemd/system/lamppost.service.d/unprivileged.conf
systemctl daemon-reload
systemd-analyze verify --man=no lamppost.service lamppost.socket
echo "verify $?"
systemctl enable --quiet --now lamppost.socket
echo "socket $?"
systemctl reset-failed lamppost
systemctl start lamppost
echo "start $?"
grep -E '^(Cap|NoNewPrivs|Seccomp:)' "/proc/$(main_pid)/status" | cut --fields 2 | tr '\n' ' '
stat --format %U "/proc/$(main_pid)"
running
systemd-analyze security --threshold=20 --no-pager lamppost | tail -n 1
stat --format '%A %U:%G %n' $state $state/control.sock /run/lamppost /run/lamppost/submit.sock
find $state ! -user lamppost
deliver unprivileged
runuser -u eve -- lamppost status >/dev/null
echo "eve $?"
systemctl reload lamppost
echo "reload $?"
systemctl restart lamppost
echo "restart $?"
lamppost status | grep --count '127.0.0.1:25.*listening'
dpkg --install /root/first.deb >/dev/null 2>&1
echo "dpkg $?"
stat --format %U "/proc/$(main_pid)"

mark with root again
# As after an upgrade from a version that had one user.
systemctl disable --quiet --now lamppost.socket 2>/dev/null
systemctl stop lamppost
rm -r /etc/systemd/system/lamppost.service.d /etc/systemd/system/lamppost.socket
systemctl daemon-reload
systemctl reset-failed lamppost
systemctl start lamppost
echo "start $?"
running
stat --format '%A %U:%G %n' $state $state/*
for folder in policy:policy spool:queue mail:delivery log:control; do
    find $state/${folder%:*} ! -user lamppost-${folder#*:}
done
deliver again

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
