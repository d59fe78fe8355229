"""`hpcc web`: pages about the farm and this machine's builds, for the browser of one user.

Problem: other users of the machine reach loopback as well, and so does each page that is open in
the user's browser. And what the pages show is hostile: names of files, flags and messages come from
whatever was compiled, and texts of a farm from other machines.

Rule: a random link, which works once, gives one browser a cookie. `session` decides from a request
alone whether it comes from there. `site` reads the flight recorder and answers, `pages` and
`hpcc.cli.builds` make the markup, `shell` puts a policy around it that allows no inline script and
no inline style. The pages are complete without a script; `live.js` puts new content in place.

Without `--local` there are pages about the farm, too. `farm_site` asks the schedulers with the
user's own login and holds one picture; the modules beside it make markup of it. The schedulers
decide what this login may see, and a page shows what they sent.

What must never happen: content for a request without the cookie, text of a record or a scheduler
that becomes markup, or a page whose making takes more than a small share of the machine from the
build, or of a scheduler from its farm.
"""
