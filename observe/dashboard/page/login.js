// Trades the secret of the link, which is behind the # and so was never sent, for a session.
"use strict";

async function login() {
  const said = document.getElementById("said");
  const link = location.hash.slice(1);
  history.replaceState(null, "", "/"); // the link stays in no history
  if (link === "") {
    said.textContent = "Open the link that usernet dashboard prints. A link is good once; press Enter there for another one.";
    return;
  }
  try {
    const answer = await fetch("login", {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({link}),
    });
    const value = await answer.json();
    if (!answer.ok) {
      throw new Error(value.message);
    }
    sessionStorage.setItem("usernet-key", value.key);
    location.replace("/");
  } catch (e) {
    said.textContent = `The dashboard does not open: ${e.message}`;
  }
}

login();
window.addEventListener("hashchange", login); // a link that is opened in the same tab
