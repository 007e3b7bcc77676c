/* A page of one card. */

document.documentElement.classList.add("scripted");
all("button.light").forEach((button) => button.remove()); // there is no figure
connectCards();
