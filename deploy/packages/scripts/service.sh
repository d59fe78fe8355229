reload_systemd() {
    [ ! -d /run/systemd/system ] || systemctl daemon-reload || :
}

end_units() {
    if [ -d /run/systemd/system ]; then
        systemctl --no-reload disable --now @UNITS@ || :
    else
        systemctl --no-reload disable @UNITS@ || :
    fi
}

say_what_stays() {
    echo "@PACKAGE@: nothing that it wrote is deleted. Left are /var/lib/@PACKAGE@ (@STATE@), what you put" \
        "into /etc/hpcc/@SERVICE@, and the user @PACKAGE@." >&2
}
