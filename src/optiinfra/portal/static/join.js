// Moves the code of an invitation from the link into the form, so that it does not stay in the address and the history.

function takeCode() {
  const code = location.hash.slice(1);
  if (!code) return;
  history.replaceState(null, "", location.pathname);
  document.getElementById("token").value = code;
  document.getElementById("password").focus();
}

addEventListener("hashchange", takeCode);
takeCode();
